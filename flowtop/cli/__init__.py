"""The commands flowtop and flowtop-dump: options, settings, sources, exit statuses."""
