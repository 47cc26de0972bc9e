"""The gateway: OpenAI's protocol in front, routing by the ledger, every answer and feedback kept. No torch in it."""
