"""The thin half of Headrace: Kafka, Redis, the clock and the command line around `pipeline`."""
