"""Answer one chat request: from its body to the stored interaction, with shadow copies, arena and feedback."""
