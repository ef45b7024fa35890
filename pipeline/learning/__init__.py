"""Keras models: the recipe they are built from, the file they are saved in, the hardware they run on."""
