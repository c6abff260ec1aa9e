"""What users of the official SDKs write: programs that run in the SDK's own environment, one line of JSON in and out."""
