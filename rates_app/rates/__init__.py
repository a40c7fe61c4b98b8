"""Questions about rates: locations, averages, spreads and lanes, answered from the rollups."""
