"""Its fixtures end with it: a package, so that roles stop running when its tests are done."""
