"""An offscreen stand-in for the 3D Slicer application: see README.md in the folder above."""
