"""What runs in the process of a driver. Nothing here may import what a bare interpreter does not have.

wire          messages between gateway and process
abi           contract/driver.h as ctypes sees it
instance      one instance of a native driver: the calls of the gateway made on it
channel       the device's lines, as a native driver sends and receives on them
confinement   what the process may do, given up before the driver is loaded
native        the process of a native driver
python        the process of a Python driver; this one imports the gateway's packages
"""
