"""Calibration data of any kind, turned into token windows."""
