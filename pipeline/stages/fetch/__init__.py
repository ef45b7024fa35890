"""Downloads, reads and watches images."""
