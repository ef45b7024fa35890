"""What people run around the stages."""
