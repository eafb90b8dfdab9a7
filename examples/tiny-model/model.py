"""A small language model: word trigrams with back-off, counted in a text."""

import math
import random
import re
from collections import Counter, defaultdict

END, MARKS = "\n\n", ".,;:!?"


def tokens(text):
    """Lower-case words, punctuation marks, and END where a paragraph ends."""
    return re.findall(r"\n\n|\w+(?:['-]\w+)*|[.,;:!?]", text.lower())


def spell(word, before):
    """A word as it stands in a text: after a space unless it is the first, with a capital where a sentence begins."""
    if word in MARKS or word == END:
        return word
    return ("" if before in (None, END) else " ") + (word.capitalize() if before in (None, END, *".!?") else word)


class Model:
    """How often each word follows two, one or no others."""

    def __init__(self, text):
        self.counts, words = defaultdict(Counter), tokens(text)
        for length in range(3):
            for i in range(length, len(words)):
                self.counts[tuple(words[i - length : i])][words[i]] += 1

    def known(self, context):
        """As much of the end of a context as was ever seen: two words, one, or none."""
        return next(key for key in (tuple(context[-2:]), tuple(context[-1:]), ()) if key in self.counts)

    def odds(self, context):
        """[(word, P(word | context))], likeliest first: 0.9 trigram + 0.1 bigram; of a shorter known context the bigram or unigram."""
        seen, mixed = self.known(context), Counter()
        for share, key in ((0.9, seen), (0.1, seen[1:])) if len(seen) == 2 else ((1, seen),):
            for word, count in self.counts[key].items():
                mixed[word] += share * count / sum(self.counts[key].values())
        return mixed.most_common()

    def write(self, context, temperature, seed):
        """Go on with a text until the model ends its paragraph: (token, its log probability, {token: log probability})."""
        chance = random.Random(seed)
        while True:
            choices, before = self.odds(context), context[-1] if context else None
            # A temperature so low that nothing but the likeliest word is left is the same as none at all.
            weights = [(p / choices[0][1]) ** (1 / max(temperature, 0.001)) for _, p in choices]
            word, p = chance.choices(choices, weights)[0] if temperature else choices[0]
            if word == END:
                return
            yield spell(word, before), math.log(p), {spell(other, before): math.log(q) for other, q in choices}
            context = [*context[-1:], word]
