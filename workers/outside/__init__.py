"""The pipeline from outside, as any subscriber sees it: topics read back, latencies, tables on a terminal."""
