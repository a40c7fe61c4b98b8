-- Request the paths in a file in a loop; print the measurements as JSON.
local paths = {}
for line in io.lines(os.getenv("BENCHMARK_PATHS")) do paths[#paths + 1] = line end
local position = tonumber(os.getenv("BENCHMARK_OFFSET"))

request = function()
  position = position % #paths + 1
  return wrk.format("GET", paths[position])
end

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"p999":%f,"refused":%d,"lost":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, e.status, e.connect + e.read + e.write + e.timeout))
end
