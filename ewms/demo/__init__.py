"""The demo: the main job on one machine, from a start order to collected results."""
