"""Colours that are distinguishable with any colour vision: Okabe and Ito, "Color Universal Design",
https://jfly.uni-koeln.de/color/.
"""

ORANGE, SKY_BLUE, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILLION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
