"""Numbers of a batch for Prometheus (the extra ``metrics``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidseg.errors import OutputError, UsageError
from vidseg_pipelines.batch.store import BatchRecords


@contextmanager
def serving(store: BatchRecords, port: int | None) -> Iterator[int | None]:
    """Answer Prometheus at ``http://127.0.0.1:PORT/metrics`` inside the block; None: do not. 0: any free port.

    Raises:
        UsageError: prometheus-client is not installed. OutputError: the port is taken.
    """
    if port is None:
        yield None
        return
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise UsageError("--metrics-port needs the extra 'metrics': pip install 'vidseg[metrics]'") from error
    registry = CollectorRegistry()
    registry.register(_Collector(store))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise OutputError(f"--metrics-port {port}: {error.strerror}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Reads the records whenever Prometheus asks."""

    def __init__(self, store: BatchRecords) -> None:
        self._store = store

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        videos = GaugeMetricFamily("vidseg_batch_videos", "Videos by status", labels=["status"])
        frames = CounterMetricFamily("vidseg_batch_frames", "Frames done, by status of the video", labels=["status"])
        seconds = CounterMetricFamily("vidseg_batch_seconds", "Seconds of work of videos that ended", labels=["status"])
        states = self._store.states()
        for status in ("done", "partial", "failed", "running", "waiting"):
            count, framed, worked = states.get(status, (0, 0, 0.0))
            videos.add_metric([status], count)
            frames.add_metric([status], framed)
            seconds.add_metric([status], worked)
        heartbeat = GaugeMetricFamily("vidseg_batch_oldest_heartbeat_seconds", "Age of the oldest heartbeat")
        heartbeat.add_metric([], self._store.oldest_heartbeat())
        yield from (videos, frames, seconds, heartbeat)
