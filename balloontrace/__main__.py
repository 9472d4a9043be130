# SPDX-License-Identifier: Apache-2.0
"""python -m balloontrace"""

from balloontrace.cli.entry import main

if __name__ == "__main__":
    main()
