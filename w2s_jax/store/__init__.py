"""What is kept on disk or at a URL: artifacts, arrays, parameters, leases."""
