"""What crosses a topic: records, canonical bytes, digests, the topic map, and the pure rules several rooms apply."""
