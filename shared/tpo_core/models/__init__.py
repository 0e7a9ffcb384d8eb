"""Who answers: policies, and chat models behind them."""
