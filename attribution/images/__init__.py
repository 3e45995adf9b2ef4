"""Photos from files and from an installed package."""

from attribution.images.files import FORMATS as FORMATS
from attribution.images.files import MAX_BYTES as MAX_BYTES
from attribution.images.files import MAX_PIXELS as MAX_PIXELS
from attribution.images.files import Photo as Photo
from attribution.images.files import digest as digest
from attribution.images.files import photo as photo
from attribution.images.files import read as read
from attribution.images.samples import sample_photo as sample_photo
