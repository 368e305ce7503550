"""The processes that you start: the reference application and its demo."""
