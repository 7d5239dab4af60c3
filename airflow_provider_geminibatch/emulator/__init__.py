"""An HTTP server that speaks the documented wire; imports nothing of ours."""
