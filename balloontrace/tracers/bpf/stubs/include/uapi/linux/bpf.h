/* Asked for by BCC's own headers; nothing of it is needed. */
