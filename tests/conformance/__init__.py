"""The checklist of producer semantics, a test an item, on a broker that answers as the test says."""
