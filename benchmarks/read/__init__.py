"""Compare the speed of reads with a minimal server and with a straightforward implementation."""
