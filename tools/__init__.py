# SPDX-License-Identifier: Apache-2.0
"""What sets the project up, writes its documents, and what its other programs have in common."""
