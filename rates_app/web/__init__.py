"""The pages: rendered on the server, complete without JavaScript, answered from the caches like the API."""
