"""Classes known from a few examples each, and which of them an image belongs to.

A class is the images with the role `example` and its label; it exists while there is one. There is nothing else to a
class, so that whatever changes images (upload, import, PATCH, delete) changes classes too.
"""
