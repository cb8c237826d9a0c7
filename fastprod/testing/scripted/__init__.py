"""A broker double that speaks Kafka's protocol and answers as a test tells it."""
