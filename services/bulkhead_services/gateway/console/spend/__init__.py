"""The room of spending, and the forecast of the day that the overview shows too."""
