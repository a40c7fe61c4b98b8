"""Where deliveries come from: folder, bucket, upload."""
