"""Layers become chunks, chunks become frames, frames become packs; and back. No sockets, no processes."""
