"""Pages and pictures of reports as text: SVG and HTML without script and without network, for light and dark screens.

Owns how things look; what is shown is the business of the reports. Invariant: words that come from data pass through
`words.safe`, and numbers that are not finite are never drawn.
"""
