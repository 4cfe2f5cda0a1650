"""Models as they come: found, checked, loaded, recognised again, and placed on a device."""
