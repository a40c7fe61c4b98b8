"""PostgreSQL: the pools that reads and writes go through, and the migrations that shape the schema."""
