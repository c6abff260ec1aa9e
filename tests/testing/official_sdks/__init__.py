"""What users of the official SDKs write: programs for the SDK's own environment, one line of JSON in and out."""
