"""The log service: a tail over HTTP for the api, a follow over WebSocket for clients. It shares the adapters with the operator."""
