"""What a part must do whoever wrote it: scenarios to run on yours."""
