// Gives a current virtio_balloon the behaviour Linux 4.19 to 5.6 had with
// VIRTIO_BALLOON_F_DEFLATE_ON_OOM: the balloon is a shrinker's prey, so any
// reclaim deflates it, and there is no OOM notifier. The history is Linux
// commits 71994620bb25 (shrinker, 4.19) and da10329cb057 (back, 5.7).
//
// Written against names, not lines: one patch serves every kernel of the lab.

// Any reclaim may take the balloon's pages, after the free page hints.
@scan@
identifier vb, sc;
@@
 virtio_balloon_shrinker_scan(..., struct shrink_control *sc)
 {
 ...
- return shrink_free_pages(vb, sc->nr_to_scan);
+ unsigned long freed = 0;
+
+ if (virtio_has_feature(vb->vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
+ 	freed = shrink_free_pages(vb, sc->nr_to_scan);
+ /* leak_balloon() takes at most 256 balloon pages a call. */
+ while (vb->num_pages && freed < sc->nr_to_scan) {
+ 	unsigned long wanted = (sc->nr_to_scan - freed) * VIRTIO_BALLOON_PAGES_PER_PAGE;
+ 	unsigned long leaked = leak_balloon(vb, wanted);
+
+ 	if (!leaked)
+ 		break;
+ 	freed += leaked / VIRTIO_BALLOON_PAGES_PER_PAGE;
+ }
+ update_balloon_size(vb);
+ return freed;
 }

@count@
identifier vb;
expression hints;
@@
 virtio_balloon_shrinker_count(...)
 {
 ...
- return vb->num_free_page_blocks * hints;
+ return vb->num_pages / VIRTIO_BALLOON_PAGES_PER_PAGE +
+ 	vb->num_free_page_blocks * hints;
 }

@no_notifier@
identifier notify = virtio_balloon_oom_notify;
@@
- notify(...) { ... }

// Free page hinting alone no longer registers the shrinker ...
@probe_hint@
identifier vb, failed;
symbol err;
@@
 virtballoon_probe(...)
 {
 <...
- err = virtio_balloon_register_shrinker(vb);
- if (err)
- 	goto failed;
 ...>
 }

// ... DEFLATE_ON_OOM does.
@probe_oom@
identifier vb, failed;
symbol err;
@@
 virtballoon_probe(...)
 {
 <...
- vb->oom_nb.notifier_call = virtio_balloon_oom_notify;
- vb->oom_nb.priority = VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY;
- err = register_oom_notifier(&vb->oom_nb);
- if (err < 0)
+ err = virtio_balloon_register_shrinker(vb);
+ if (err)
  	goto failed;
 ...>
 }

// Failed probe and remove alike: the shrinker goes where the notifier went.
@undo_hint@
identifier fn = {virtballoon_probe, virtballoon_remove};
expression vdev, vb;
@@
 fn(...)
 {
 <...
- if (virtio_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
- 	virtio_balloon_unregister_shrinker(vb);
 ...>
 }

@undo_oom@
identifier fn = {virtballoon_probe, virtballoon_remove};
expression vb;
@@
 fn(...)
 {
 <...
- unregister_oom_notifier(&vb->oom_nb)
+ virtio_balloon_unregister_shrinker(vb)
 ...>
 }

// The build asks for this version: it is there only if every rule above applied.
@version depends on scan && count && no_notifier && probe_hint && probe_oom && undo_hint && undo_oom@
declarer name MODULE_DESCRIPTION, MODULE_VERSION;
expression text;
@@
 MODULE_DESCRIPTION(text);
+ MODULE_VERSION("balloontrace-shrinker");
