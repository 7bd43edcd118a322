"""vidseg inside other tools: :mod:`vidseg.integrations.cvat`, :mod:`vidseg.integrations.fiftyone`."""
