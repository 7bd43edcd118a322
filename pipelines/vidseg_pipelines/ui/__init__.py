"""The page: open a video in a browser, click on objects, see their masks, run, correct, export.

``server.build_app`` is the web application, ``serve.serve`` runs it until the process is asked to end. A request goes
``guard`` (token, host) -> ``server`` -> ``desk`` (who looks at what) -> ``project`` (one video and its run folder) ->
``engine`` (networks), ``results`` (the journal). The page itself is in ``static/``.
"""
