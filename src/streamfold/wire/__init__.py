"""Pure protocol: requests to bytes, bytes to chunks. Nothing here awaits or opens anything."""
