"""Figures of decisions and probabilities, over NumPy arrays. Pure.

calibration   how well probabilities hold: figures with their intervals
"""
