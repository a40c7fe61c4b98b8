"""The freight-rates service: ingest, serve and watch container prices between ports and regions."""
