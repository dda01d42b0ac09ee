"""Evaluates trained rankers, predicts on folders of pictures, and draws the reports."""
