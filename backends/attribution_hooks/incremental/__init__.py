"""Occlusion by what each window changes: only the part of every layer that a window can reach is computed."""
