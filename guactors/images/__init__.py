"""Images: the manifest, the content store, transfer, import and export.

Nothing is imported here: most processes never touch an image.
"""
