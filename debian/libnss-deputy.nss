passwd	last	deputy
group	last	deputy
