"""Compare how servers treat good clients while many bad connections come and go."""
